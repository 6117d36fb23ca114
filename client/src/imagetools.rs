//! Looking at images in a registry: what `imagetools inspect` shows, in the shapes that scripts around buildx expect.

mod data;
mod load;
mod print;
mod schema;
mod template;

pub use load::inspect;
pub use print::summary;
pub use template::render;
