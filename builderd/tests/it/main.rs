//! The daemon's rooms from outside, against the real kernel and, where it is there, a real container engine.

mod executor;
