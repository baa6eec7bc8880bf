pub mod verify; pub mod normalize;
