//! Records, guards, heads and tickets as JSON files in OpenCode's layout.
