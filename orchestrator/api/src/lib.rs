//! saga-api
