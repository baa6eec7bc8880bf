//! The console through its outer surface: the real binary, and what a browser sends and gets. What needs a browser is tested in one.

mod harness;

mod log_in;
mod security;
mod proxies;
mod local;
mod pages;
