//! What the image reader promises: archives and layouts of all forms, and what it refuses.

mod bombs;
mod build;
mod entries;
mod forms;
mod hostile;
mod layers;
mod merge;
mod random;
