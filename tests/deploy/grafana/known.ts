import type { AnnotationQuery, Dashboard, VariableModel } from "@grafana/schema";

// Grafana's schema leaves open what belongs to a kind of variable, and to the data source of an annotation: Prometheus.
type QueryVariable = VariableModel & { definition?: string };
type PrometheusAnnotation = AnnotationQuery & {
  expr: string;
  titleFormat: string;
  textFormat: string;
  useValueForTime: boolean;
};

export type Known = Dashboard & {
  templating: { list: QueryVariable[] };
  annotations: { list: PrometheusAnnotation[] };
};
