//! How a run is told: a line while it runs, a table, JSON, an interval log, a page.

pub mod hdr;
pub mod html;
pub mod json;
pub mod plot;
pub mod progress;
pub mod text;
