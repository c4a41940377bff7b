//! A [`Timeline`](crate::report::timeline::Timeline) as a page to look at, as lines for a program, and as a trace for Perfetto.

mod html;
mod json;
mod perfetto;

pub use html::html;
pub use json::{VERSION, json_lines};
pub use perfetto::perfetto;
