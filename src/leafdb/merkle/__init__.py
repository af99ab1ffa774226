"""leafdb.merkle"""
