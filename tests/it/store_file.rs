//! store_file
