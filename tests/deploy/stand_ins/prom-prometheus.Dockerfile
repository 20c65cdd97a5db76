FROM services
RUN install -d -o nobody /prometheus
ENTRYPOINT ["prometheus"]
