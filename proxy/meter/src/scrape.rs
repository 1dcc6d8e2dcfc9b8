//! Prometheus text (exposition format 0.0.4), summed over the cores at the time of the scrape.

use std::fmt::Write;

use crate::core::{Counter, Gauge, PerCore};
use crate::histogram::{LazyHistogram, Merged};
use crate::names::{Reason, UPSTREAM_FLOODS};
use crate::registry::{Family, Registry};
use crate::tls::{TlsMeters, TlsReason};

/// What is being written.
pub(crate) struct Text(String);

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Text {
    pub(crate) fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn counters<T>(
        &mut self,
        family: &Family<T>,
        label: Labels,
        name: &str,
        help: &str,
        figure: impl Fn(&T) -> &Counter,
    ) {
        self.head(name, "counter", help);
        for (key, series) in family {
            self.sample(name, &label(key), series.sum(|block| figure(block).get()));
        }
    }

    fn gauges<T>(&mut self, family: &Family<T>, label: Labels, name: &str, help: &str, figure: impl Fn(&T) -> &Gauge) {
        self.head(name, "gauge", help);
        for (key, series) in family {
            self.sample(name, &label(key), series.sum_gauge(|block| figure(block).get()));
        }
    }

    fn secured_listeners(&mut self, family: &Family<crate::ListenerMeters>) {
        self.counters(
            family,
            listener,
            "onehop_listener_would_deny_total",
            "Requests and connections that an authorization rule in dry-run mode would have refused.",
            |block| &block.would_deny,
        );
        self.handshakes(family, listener, "onehop_listener", |block| &block.tls);
    }

    /// The handshakes of every listener, or of every cluster.
    fn handshakes<T>(&mut self, family: &Family<T>, label: Labels, prefix: &str, figure: impl Fn(&T) -> &TlsMeters) {
        let name = format!("{prefix}_tls_handshakes_total");
        self.head(&name, "counter", "TLS handshakes that succeeded, full or resumed.");
        let seen = |series: &PerCore<T>| series.sum(|block| figure(block).full.get() + figure(block).resumed.get());
        for (key, series) in family.iter().filter(|(_, series)| seen(series) > 0) {
            let full = series.sum(|block| figure(block).full.get());
            self.sample(&name, &format!("{},kind=\"full\"", label(key)), full);
            let resumed = series.sum(|block| figure(block).resumed.get());
            self.sample(&name, &format!("{},kind=\"resumed\"", label(key)), resumed);
        }
        let name = format!("{prefix}_tls_handshake_seconds_total");
        self.head(&name, "counter", "Time from the first to the last byte of successful handshakes.");
        for (key, series) in family.iter().filter(|(_, series)| seen(series) > 0) {
            self.sample(&name, &label(key), series.sum(|block| figure(block).time_ns.get()) as f64 / 1e9);
        }
        let name = format!("{prefix}_peer_connections_total");
        self.head(&name, "counter", "TLS connections by the identity that the peer has shown.");
        for (key, series) in family {
            let mut peers = std::collections::BTreeMap::new();
            for (peer, count) in series.all().flat_map(|block| figure(block).peers.each()) {
                *peers.entry(peer).or_insert(0) += count;
            }
            for (peer, count) in peers {
                self.sample(&name, &format!("{},peer=\"{}\"", label(key), escape(peer)), count);
            }
        }
        let name = format!("{prefix}_tls_failures_total");
        self.head(&name, "counter", "TLS handshakes that failed, and identities that were refused, by reason.");
        for (key, series) in family {
            for (at, reason) in TlsReason::ALL.iter().enumerate() {
                let count = series.sum(|block| figure(block).failures[at].get());
                if count > 0 {
                    self.sample(&name, &format!("{},reason=\"{}\"", label(key), reason.as_str()), count);
                }
            }
        }
    }

    fn histograms<T>(
        &mut self,
        family: &Family<T>,
        label: Labels,
        name: &str,
        help: &str,
        figure: impl Fn(&T) -> &LazyHistogram,
    ) {
        self.head(name, "histogram", help);
        for (key, series) in family {
            let mut merged = Merged::default();
            for block in series.all() {
                merged.add(figure(block));
            }
            let (labels, count) = (label(key), merged.count());
            if count == 0 {
                // Thousands of routes that nobody uses would fill a scrape with zeros.
                continue;
            }
            for (bound, seen) in merged.cumulative().filter(|_| merged.is_spread()) {
                self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{}\"", bound as f64 / 1e9), seen);
            }
            self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
            self.sample(&format!("{name}_sum"), &labels, merged.sum_ns as f64 / 1e9);
            self.sample(&format!("{name}_count"), &labels, count);
        }
    }
}

type Labels = fn(&str) -> String;

fn listener(key: &str) -> String {
    format!("listener=\"{}\"", escape(key))
}

pub(crate) fn route(key: &str) -> String {
    format!("route=\"{}\"", escape(key))
}

fn cluster(key: &str) -> String {
    format!("cluster=\"{}\"", escape(key))
}

fn endpoint(key: &str) -> String {
    let (cluster, address) = key.split_once('\n').unwrap_or(("", key));
    format!("cluster=\"{}\",endpoint=\"{}\"", escape(cluster), escape(address))
}

impl Registry {
    /// Everything, as Prometheus reads it.
    pub fn scrape(&self) -> String {
        let mut text = Text(String::with_capacity(16 * 1024));
        self.process(&mut text);
        self.listeners(&mut text);
        self.routes(&mut text);
        self.clusters(&mut text);
        text.0
    }

    fn process(&self, text: &mut Text) {
        let families = self.families();
        text.head("onehop_info", "gauge", "What this process is and runs on.");
        let info: Vec<String> =
            families.info.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        text.sample("onehop_info", &info.join(","), 1);
        for (name, (help, is_counter, value)) in &families.own {
            text.head(name, if *is_counter { "counter" } else { "gauge" }, help);
            text.sample(name, "", value);
        }
        let cores: &PerCore<_> = self.core();
        for (name, help, scale, figure) in CORE_COUNTERS {
            text.head(name, "counter", help);
            for (core, block) in cores.all().enumerate() {
                text.sample(name, &format!("core=\"{core}\""), figure(block).get() as f64 * scale);
            }
        }
        for (name, help, figure) in CORE_GAUGES {
            text.head(name, "gauge", help);
            for (core, block) in cores.all().enumerate() {
                text.sample(name, &format!("core=\"{core}\""), figure(block).get());
            }
        }
    }

    fn listeners(&self, text: &mut Text) {
        let families = self.families();
        let family = &families.listeners;
        text.counters(family, listener, "onehop_listener_accepted_total", "Connections accepted.", |block| {
            &block.accepted
        });
        text.gauges(family, listener, "onehop_listener_connections", "Connections open.", |block| &block.active);
        text.counters(
            family,
            listener,
            "onehop_listener_refused_total",
            "Connections closed at once for a limit.",
            |block| &block.refused,
        );
        text.counters(family, listener, "onehop_listener_requests_total", "Requests begun.", |block| &block.requests);
        text.counters(
            family,
            listener,
            "onehop_listener_received_bytes_total",
            "Payload bytes from clients.",
            |block| &block.bytes_in,
        );
        text.counters(family, listener, "onehop_listener_sent_bytes_total", "Payload bytes to clients.", |block| {
            &block.bytes_out
        });
        text.head(
            "onehop_listener_faults_total",
            "counter",
            "Requests and connections that ended otherwise than well, by reason.",
        );
        for (key, series) in family {
            for (at, reason) in Reason::ALL.iter().enumerate() {
                let count = series.sum(|block| block.faults[at].get());
                if count > 0 {
                    text.sample(
                        "onehop_listener_faults_total",
                        &format!("{},reason=\"{}\"", listener(key), reason.as_str()),
                        count,
                    );
                }
            }
        }
        text.head("onehop_listener_rejected_total", "counter", "Messages refused, by the rule that they break.");
        for (key, series) in family {
            for (at, rule) in families.reject_names.iter().enumerate() {
                let count = series.sum(|block| block.rejected[at].get());
                if count > 0 {
                    text.sample("onehop_listener_rejected_total", &format!("{},rule=\"{rule}\"", listener(key)), count);
                }
            }
        }
        text.secured_listeners(family);
        text.histograms(family, listener, "onehop_listener_hop_seconds", "Time in the proxy's own hands.", |block| {
            &block.hop
        });
        text.histograms(
            family,
            listener,
            "onehop_listener_client_wait_seconds",
            "Time waiting for the client.",
            |block| &block.client_wait,
        );
        text.histograms(
            family,
            listener,
            "onehop_listener_upstream_wait_seconds",
            "Time waiting for the upstream.",
            |block| &block.upstream_wait,
        );
    }

    fn routes(&self, text: &mut Text) {
        let families = self.families();
        let family = &families.routes;
        text.counters(family, route, "onehop_route_requests_total", "Requests.", |block| &block.requests);
        text.head("onehop_route_responses_total", "counter", "Responses by class of status.");
        for (key, series) in family {
            for (at, class) in ["1xx", "2xx", "3xx", "4xx", "5xx", "none"].iter().enumerate() {
                let count = series.sum(|block| block.responses[at].get());
                if count > 0 {
                    text.sample("onehop_route_responses_total", &format!("{},class=\"{class}\"", route(key)), count);
                }
            }
        }
        text.head("onehop_route_grpc_calls_total", "counter", "gRPC calls by their status.");
        for (key, series) in family {
            for status in 0..17 {
                let count = series.sum(|block| block.grpc.read(status));
                if count > 0 {
                    text.sample("onehop_route_grpc_calls_total", &format!("{},status=\"{status}\"", route(key)), count);
                }
            }
        }
        text.counters(family, route, "onehop_route_retries_total", "Attempts beyond the first.", |block| {
            &block.retries
        });
        text.counters(family, route, "onehop_route_rate_limited_total", "Requests refused for a rate.", |block| {
            &block.limited
        });
        text.counters(family, route, "onehop_route_shed_total", "Requests that a saturated core refused.", |block| {
            &block.shed
        });
        text.resilience(family);
        text.histograms(
            family,
            route,
            "onehop_hop_seconds",
            "What the hop cost each request: time in the proxy's own hands.",
            |block| &block.hop,
        );
        text.histograms(family, route, "onehop_route_duration_seconds", "Whole time of each request.", |block| {
            &block.total
        });
    }

    fn clusters(&self, text: &mut Text) {
        let families = self.families();
        let family = &families.clusters;
        text.counters(family, cluster, "onehop_cluster_requests_total", "Requests and TCP connections.", |block| {
            &block.requests
        });
        text.gauges(family, cluster, "onehop_cluster_active", "Requests and TCP connections under way.", |block| {
            &block.active
        });
        text.gauges(family, cluster, "onehop_cluster_connections", "Connections open.", |block| &block.connections);
        text.counters(family, cluster, "onehop_cluster_connects_total", "Connections made.", |block| &block.connects);
        text.counters(
            family,
            cluster,
            "onehop_cluster_connect_failures_total",
            "Connections that could not be made.",
            |block| &block.connect_failures,
        );
        text.counters(family, cluster, "onehop_cluster_pool_hits_total", "Requests on a pooled connection.", |block| {
            &block.pool_hits
        });
        text.counters(family, cluster, "onehop_cluster_pool_evicted_total", "Idle connections closed.", |block| {
            &block.pool_evicted
        });
        text.counters(family, cluster, "onehop_cluster_timeouts_total", "Requests not answered in time.", |block| {
            &block.timeouts
        });
        text.counters(family, cluster, "onehop_cluster_resets_total", "Connections ended before an answer.", |block| {
            &block.resets
        });
        text.head(
            "onehop_cluster_floods_total",
            "counter",
            "HTTP/2 connections given up for what the upstream sent, by reason.",
        );
        for (key, series) in family {
            for (at, reason) in UPSTREAM_FLOODS.iter().enumerate() {
                let count = series.sum(|block| block.floods[at].get());
                if count > 0 {
                    let labels = format!("{},reason=\"{}\"", cluster(key), reason.as_str());
                    text.sample("onehop_cluster_floods_total", &labels, count);
                }
            }
        }
        text.counters(family, cluster, "onehop_cluster_retries_total", "Attempts beyond the first.", |block| {
            &block.retries
        });
        text.counters(family, cluster, "onehop_cluster_overflow_total", "Requests refused for a limit.", |block| {
            &block.overflow
        });
        text.handshakes(family, cluster, "onehop_cluster", |block| &block.tls);
        text.counters(family, cluster, "onehop_cluster_ejections_total", "Endpoints ejected.", |block| {
            &block.ejections
        });
        let family = &families.endpoints;
        text.counters(family, endpoint, "onehop_endpoint_requests_total", "Requests and TCP connections.", |block| {
            &block.requests
        });
        text.counters(family, endpoint, "onehop_endpoint_failures_total", "Of them failed by the endpoint.", |block| {
            &block.failures
        });
        text.counters(family, endpoint, "onehop_endpoint_connects_total", "Connections made.", |block| &block.connects);
        text.counters(
            family,
            endpoint,
            "onehop_endpoint_connect_failures_total",
            "Connections that could not be made.",
            |block| &block.connect_failures,
        );
    }
}

type CoreCounter = (&'static str, &'static str, f64, fn(&crate::CoreMeters) -> &Counter);
type CoreGauge = (&'static str, &'static str, fn(&crate::CoreMeters) -> &Gauge);

const CORE_COUNTERS: &[CoreCounter] = &[
    ("onehop_core_completions_total", "Operations completed.", 1.0, |block| &block.completions),
    ("onehop_core_polls_total", "Turns of polling the ring.", 1.0, |block| &block.polls),
    ("onehop_core_polling_seconds_total", "Time spent polling instead of sleeping.", 1e-9, |block| &block.polling_ns),
    ("onehop_core_installs_total", "Configurations taken over.", 1.0, |block| &block.installs),
    ("onehop_core_install_seconds_total", "Time in taking configurations over.", 1e-9, |block| &block.install_ns),
    ("onehop_core_panics_total", "Connection tasks that panicked.", 1.0, |block| &block.panics),
    ("onehop_core_accept_errors_total", "Failed accepts (descriptors exhausted).", 1.0, |block| &block.accept_errors),
    ("onehop_core_access_records_dropped_total", "Access records lost because the queue was full.", 1.0, |block| {
        &block.access_dropped
    }),
];

const CORE_GAUGES: &[CoreGauge] = &[
    ("onehop_core_connections", "Downstream connections.", |block| &block.connections),
    ("onehop_core_buffers", "Read buffers in use.", |block| &block.buffers),
    ("onehop_core_buffer_bytes", "Bytes of the read buffers in use.", |block| &block.buffer_bytes),
    ("onehop_core_pressure_milli", "What a saturated core refuses: 1000 is all of low priority.", |block| {
        &block.pressure
    }),
    ("onehop_core_snapshot_generation", "The configuration in force.", |block| &block.snapshot_generation),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed_and_labels_escaped() {
        let registry = Registry::new(2);
        registry.info("rung", "a \"b\"");
        let requests = registry.cluster("web");
        requests.core(0).requests.add(2);
        requests.core(1).requests.add(3);
        registry.route("r").core(1).hop.record(5_000);
        let text = registry.scrape();
        assert!(text.contains("onehop_cluster_requests_total{cluster=\"web\"} 5\n"), "{text}");
        assert!(text.contains("onehop_info{rung=\"a \\\"b\\\"\"} 1\n"), "{text}");
        assert!(text.contains("onehop_hop_seconds_count{route=\"r\"} 1\n"), "{text}");
    }

    #[test]
    fn counters_outlive_a_reload_and_go_with_their_last_holder() {
        let registry = Registry::new(1);
        registry.cluster("a").core(0).requests.add(1);
        let held = registry.cluster("a");
        registry.retire();
        assert_eq!(registry.cluster("a").core(0).requests.get(), 1);
        drop(held);
        registry.retire();
        assert_eq!(registry.cluster("a").core(0).requests.get(), 0);
    }
}
