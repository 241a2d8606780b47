from hypothesis import settings

# no deadline: timing never decides a test
settings.register_profile("ff3d", deadline=None)
settings.load_profile("ff3d")
