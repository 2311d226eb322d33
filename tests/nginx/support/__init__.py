"""What the nginx module's tests share: an nginx, an upstream with scripts, clients that misbehave. See ../../README.md."""
