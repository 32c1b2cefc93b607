//! A scripted world for tests: Redis servers, replicas as processes, a scripted model, a cutting proxy.
