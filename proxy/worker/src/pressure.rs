//! Looks how long the turns of this core's loop take, which is what a saturated core makes everybody wait who is ready.

use std::rc::Rc;

use onehop_net::clock;
use onehop_net::deadline::sleep_until;
use onehop_net::lap::Lap;
use onehop_plan::limit::Pressure;

use crate::shard::Shard;

/// How often it looks.
const LOOK_NS: u64 = 10_000_000;
/// How often it asks whether it is to look at all.
const REST_NS: u64 = 500_000_000;

/// Keeps the core's pressure for as long as the core runs.
pub async fn watch(shard: Rc<Shard>) {
    let mut lap = None;
    loop {
        let Some(target) = shard.shed_after() else {
            set(&shard, Pressure::default());
            sleep_until(clock::now() + REST_NS).await;
            continue;
        };
        sleep_until(clock::now() + LOOK_NS).await;
        // Where no descriptor is left it is tried again at the next look.
        let Some(known) = &lap else {
            lap = Lap::new().ok();
            continue;
        };
        let Ok(took) = known.measure().await else {
            lap = None;
            continue;
        };
        let mut pressure = shard.pressure.get();
        pressure.look(took, target);
        set(&shard, pressure);
    }
}

fn set(shard: &Shard, pressure: Pressure) {
    shard.pressure.set(pressure);
    shard.meters().pressure.set((pressure.level() * 1000.0) as i64);
}
