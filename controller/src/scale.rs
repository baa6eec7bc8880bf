//! How many workers each Integration has: every tick one reading of all queues, a decision for each Integration, and a
//! write where the number changes.

pub mod tick;
pub mod readings;
pub mod consider;
pub mod decide;
pub mod history;
pub mod apply;
