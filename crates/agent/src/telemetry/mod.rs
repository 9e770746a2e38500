//! What containers use: readings summed up between two publications. Pure; whoever reads and sends is elsewhere.

mod publication;
mod window;

pub use publication::{MOST_TASKS_PER_PAGE, pages};
pub use window::{Reading, Window};
