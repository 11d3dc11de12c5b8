"""TLS of the doors: certificates that can be renewed while connections go on."""
