//! How a child process and a file access are confined.
