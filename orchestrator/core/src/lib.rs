//! saga-core
