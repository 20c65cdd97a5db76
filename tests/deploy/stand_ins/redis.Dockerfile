FROM services
CMD ["redis-server"]
