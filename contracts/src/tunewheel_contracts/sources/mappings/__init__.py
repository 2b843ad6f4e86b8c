"""The mappings that come with Tunewheel, one YAML file each."""
