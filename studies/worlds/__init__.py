"""A learning curve in every world beside household."""
