"""Reports as pages: each is one HTML file that loads nothing, neither from the network nor from beside it."""
