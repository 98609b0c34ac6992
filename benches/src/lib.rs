//! Measurements of trustkeep against its peers.
