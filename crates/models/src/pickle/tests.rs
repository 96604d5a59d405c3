//! Laws of the reader, on hand-made pickles.
