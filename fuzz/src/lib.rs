//! What the fuzz targets share. A target panics where a promise of the program is broken.

pub mod capture;
pub mod convert;
pub mod http;
pub mod messages;
pub mod pieces;
pub mod script;
