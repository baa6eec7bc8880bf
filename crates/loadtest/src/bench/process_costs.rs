//! The processor time and memory of the system under test.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::{MachineTime, peak_memory_mb, tree_cpu_time, tree_memory_mb};

/// One value for each part of the system. The names are those of the results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PerProcess<T> {
    pub(crate) api: T,
    pub(crate) worker: T,
    pub(crate) postgres: T,
    pub(crate) rabbitmq: T,
    pub(crate) redis: T,
}

/// The ids of the processes at the root of each part. A part without one does not run, and costs nothing.
pub(crate) type SystemProcesses = PerProcess<Option<u32>>;

/// The costs of the time between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Costs {
    pub(crate) cpu: PerProcess<Duration>,
    /// The peak of api and worker; for the others, which may be many processes, the present memory.
    pub(crate) memory_mb: PerProcess<u64>,
    pub(crate) machine_busy: Duration,
    pub(crate) machine_total: Duration,
}

/// Measures costs from its creation on.
pub(crate) struct CostMeter {
    processes: SystemProcesses,
    cpu: PerProcess<Duration>,
    machine: Option<MachineTime>,
}

impl<T: Copy> PerProcess<T> {
    pub(crate) fn map<U>(self, convert: impl Fn(T) -> U) -> PerProcess<U> {
        PerProcess {
            api: convert(self.api),
            worker: convert(self.worker),
            postgres: convert(self.postgres),
            rabbitmq: convert(self.rabbitmq),
            redis: convert(self.redis),
        }
    }

    pub(crate) fn values(self) -> [T; 5] {
        [self.api, self.worker, self.postgres, self.rabbitmq, self.redis]
    }
}

impl CostMeter {
    pub(crate) fn start(processes: SystemProcesses) -> CostMeter {
        CostMeter { processes, cpu: cpu_times(processes), machine: MachineTime::now() }
    }

    /// Returns the costs since the start.
    pub(crate) fn stop(self) -> Costs {
        let (machine, cpu) = (MachineTime::now(), cpu_times(self.processes));
        let machine = self.machine.zip(machine);
        let between = |part: fn(MachineTime) -> Duration| {
            machine.map_or(Duration::ZERO, |(before, after)| part(after).saturating_sub(part(before)))
        };
        let (own, others) = (own_memory_mb, other_memory_mb);
        Costs {
            cpu: difference(cpu, self.cpu),
            memory_mb: PerProcess {
                api: own(self.processes.api),
                worker: own(self.processes.worker),
                postgres: others(self.processes.postgres),
                rabbitmq: others(self.processes.rabbitmq),
                redis: others(self.processes.redis),
            },
            machine_busy: between(|time| time.busy),
            machine_total: between(|time| time.total),
        }
    }
}

fn cpu_times(processes: SystemProcesses) -> PerProcess<Duration> {
    processes.map(|pid| pid.map_or(Duration::ZERO, tree_cpu_time))
}

fn own_memory_mb(pid: Option<u32>) -> u64 {
    pid.map_or(0, peak_memory_mb)
}

fn other_memory_mb(pid: Option<u32>) -> u64 {
    pid.map_or(0, tree_memory_mb)
}

fn difference(after: PerProcess<Duration>, before: PerProcess<Duration>) -> PerProcess<Duration> {
    PerProcess {
        api: after.api.saturating_sub(before.api),
        worker: after.worker.saturating_sub(before.worker),
        postgres: after.postgres.saturating_sub(before.postgres),
        rabbitmq: after.rabbitmq.saturating_sub(before.rabbitmq),
        redis: after.redis.saturating_sub(before.redis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_processes_cost_something() {
        let meter = CostMeter::start(SystemProcesses { api: Some(std::process::id()), ..Default::default() });
        let mut spent = 0_u64;
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(60) {
            spent = std::hint::black_box(spent.wrapping_add(1));
        }
        let costs = meter.stop();
        assert!(costs.memory_mb.api > 0 && costs.machine_total > Duration::ZERO, "{costs:?}");
        assert_eq!((costs.cpu.worker, costs.memory_mb.worker), (Duration::ZERO, 0));
    }
}
