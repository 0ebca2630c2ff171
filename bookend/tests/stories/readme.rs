//! The README as it is printed, run.
