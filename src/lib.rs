//! The session-affinity filter.
