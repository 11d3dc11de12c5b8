"""The doors: how HTTP comes in and bodies go out."""
