//! What the management API reads. Every statement of its GET routes is in the files below.
