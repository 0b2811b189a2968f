//! The journal on real files: what is written is read, whatever happens in between.
