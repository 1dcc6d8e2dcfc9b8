//! From raw blocks to what readers get: tables, a page, a picture.

pub mod agreement;
pub mod analysis;
pub mod html;
pub mod markdown;
pub mod readme;
pub mod setup;
pub mod sides;
