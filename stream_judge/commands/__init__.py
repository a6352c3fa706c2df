"""What commands show, where that takes more than a few lines."""
