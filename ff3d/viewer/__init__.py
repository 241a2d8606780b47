"""What can be looked at as it is or as it forms: in a browser, in TensorBoard, in a notebook, as a turntable."""
