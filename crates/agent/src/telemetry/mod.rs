//! What containers use: readings summed up between two publications; and how they are. Pure; whoever reads and sends is elsewhere.

mod health;
mod publication;
mod window;

pub use health::{ToldHealth, health_of, health_pages};
pub use publication::{MOST_TASKS_PER_PAGE, pages};
pub use window::{Reading, Window};
