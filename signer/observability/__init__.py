"""What the service tells about itself: JSON lines of registered events, and nothing secret in any of them."""
