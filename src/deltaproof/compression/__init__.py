"""Updates made small: ComPEFT's ternary vectors, a lossless code for them, and the file that holds them."""
