//! saga-store
