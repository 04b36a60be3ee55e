//! The language and the engine of Bactrian.
