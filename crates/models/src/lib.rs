//! A model provider is a stream of text, reasoning, tool-call and usage events.
