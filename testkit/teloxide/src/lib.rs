//! An independent client of the Bot API, run against our double of it, so that the double is not only our
//! own belief. All of it is in `tests/`.
