"""A trained run put to use: supports and queries from disk to tables and pictures, banks on disk, ONNX."""
