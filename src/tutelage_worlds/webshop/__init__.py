"""WebShop (arXiv:2207.01206) in pure Python: pages, search, goals and rewards."""

from tutelage_worlds.webshop.product import CatalogueError, Goal, Product
from tutelage_worlds.webshop.suite import WebShop, needs

__all__ = ["CatalogueError", "Goal", "Product", "WebShop", "needs"]
