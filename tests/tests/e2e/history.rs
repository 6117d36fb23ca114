//! `history`, `du` and `prune`: what they print, byte for byte as buildx does, and what they do.

mod browser;
mod daemon;
mod fixture;
mod golden;
mod records;
