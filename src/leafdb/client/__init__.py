"""leafdb.client"""
