//! What GPUs can do, by model: the reference that unproven performance is held to.
//!
//! The figures are the makers' published ones: 32-bit TFLOPS, dense 16-bit TFLOPS on matrix units (or the plain 16-bit rate
//! where there are none), and memory bandwidth in GB/s. `dlperf` weighs the last two equally, on the scale where a V100 is
//! 21: training is bound now by the one and now by the other. It is a declared yardstick, not a measurement.

/// The reference of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// 32-bit performance, in TFLOPS.
    pub tflops: f64,
    /// Deep-learning performance; a V100 is 21.
    pub dlperf: f64,
}

/// The clock, in GHz, up to which a processor is believed without proof.
pub const CPU_REFERENCE_GHZ: f64 = 3.0;

/// `dlperf` of a V100, which has 125 TFLOPS and 900 GB/s.
const V100: f64 = 21.0;
const V100_MATRIX: f64 = 125.0;
const V100_BANDWIDTH: f64 = 900.0;

/// Model as [`normal`] writes it, 32-bit TFLOPS, dense 16-bit matrix TFLOPS, GB/s. Sorted by name.
const MODELS: &[(&str, f64, f64, f64)] = &[
    ("a10", 31.2, 125.0, 600.0),
    ("a100 pcie", 19.5, 312.0, 1555.0),
    ("a100 pcie 40gb", 19.5, 312.0, 1555.0),
    ("a100 pcie 80gb", 19.5, 312.0, 1935.0),
    ("a100 sxm4", 19.5, 312.0, 1555.0),
    ("a100 sxm4 40gb", 19.5, 312.0, 1555.0),
    ("a100 sxm4 80gb", 19.5, 312.0, 2039.0),
    ("a16", 4.5, 35.9, 200.0),
    ("a2", 4.5, 18.0, 200.0),
    ("a30", 10.3, 165.0, 933.0),
    ("a40", 37.4, 149.7, 696.0),
    ("b200", 75.0, 2250.0, 8000.0),
    ("gh200 480gb", 67.0, 990.0, 4000.0),
    ("gtx 1060 6gb", 4.4, 4.4, 192.0),
    ("gtx 1070", 6.5, 6.5, 256.0),
    ("gtx 1070 ti", 8.2, 8.2, 256.0),
    ("gtx 1080", 8.9, 8.9, 320.0),
    ("gtx 1080 ti", 11.3, 11.3, 484.0),
    ("gtx 1660", 5.0, 10.0, 192.0),
    ("gtx 1660 super", 5.0, 10.0, 336.0),
    ("gtx 1660 ti", 5.4, 10.9, 288.0),
    ("h100 80gb hbm3", 67.0, 989.0, 3350.0),
    ("h100 nvl", 60.0, 835.0, 3900.0),
    ("h100 pcie", 51.0, 756.0, 2000.0),
    ("h200", 67.0, 989.0, 4800.0),
    ("h200 nvl", 60.0, 835.0, 4800.0),
    ("l4", 30.3, 121.0, 300.0),
    ("l40", 90.5, 181.0, 864.0),
    ("l40s", 91.6, 362.0, 864.0),
    ("p100 pcie 16gb", 9.3, 18.7, 732.0),
    ("p40", 11.8, 11.8, 346.0),
    ("quadro rtx 6000", 16.3, 130.5, 672.0),
    ("quadro rtx 8000", 16.3, 130.5, 672.0),
    ("rtx 2060", 6.5, 51.6, 336.0),
    ("rtx 2060 super", 7.2, 57.4, 448.0),
    ("rtx 2070", 7.5, 59.7, 448.0),
    ("rtx 2070 super", 9.1, 72.5, 448.0),
    ("rtx 2080", 10.1, 80.5, 448.0),
    ("rtx 2080 super", 11.2, 89.2, 496.0),
    ("rtx 2080 ti", 13.4, 107.6, 616.0),
    ("rtx 3050", 9.1, 36.4, 224.0),
    ("rtx 3060", 12.7, 51.2, 360.0),
    ("rtx 3060 ti", 16.2, 64.8, 448.0),
    ("rtx 3070", 20.3, 81.3, 448.0),
    ("rtx 3070 ti", 21.7, 87.0, 608.0),
    ("rtx 3080", 29.8, 119.0, 760.0),
    ("rtx 3080 ti", 34.1, 136.0, 912.0),
    ("rtx 3090", 35.6, 142.0, 936.0),
    ("rtx 3090 ti", 40.0, 160.0, 1008.0),
    ("rtx 4000 ada generation", 26.7, 106.9, 360.0),
    ("rtx 4060", 15.1, 60.5, 272.0),
    ("rtx 4060 ti", 22.1, 88.2, 288.0),
    ("rtx 4070", 29.1, 116.6, 504.0),
    ("rtx 4070 super", 35.5, 141.9, 504.0),
    ("rtx 4070 ti", 40.1, 160.4, 504.0),
    ("rtx 4070 ti super", 44.1, 176.4, 672.0),
    ("rtx 4080", 48.7, 194.9, 717.0),
    ("rtx 4080 super", 52.2, 208.9, 736.0),
    ("rtx 4090", 82.6, 330.3, 1008.0),
    ("rtx 4090 d", 73.5, 294.1, 1008.0),
    ("rtx 5000 ada generation", 65.3, 261.1, 576.0),
    ("rtx 5060", 19.2, 76.7, 448.0),
    ("rtx 5060 ti", 23.7, 94.8, 448.0),
    ("rtx 5070", 30.9, 123.5, 672.0),
    ("rtx 5070 ti", 43.9, 175.8, 896.0),
    ("rtx 5080", 56.3, 225.1, 960.0),
    ("rtx 5090", 104.8, 419.0, 1792.0),
    ("rtx 6000 ada generation", 91.1, 364.2, 960.0),
    ("rtx a2000", 8.0, 31.9, 288.0),
    ("rtx a4000", 19.2, 76.7, 448.0),
    ("rtx a4500", 23.7, 94.6, 640.0),
    ("rtx a5000", 27.8, 111.1, 768.0),
    ("rtx a6000", 38.7, 154.8, 768.0),
    ("t4", 8.1, 65.0, 300.0),
    ("titan rtx", 16.3, 130.5, 672.0),
    ("titan v", 14.9, 119.0, 653.0),
    ("titan xp", 12.1, 12.1, 548.0),
    ("v100 pcie 16gb", 14.0, 112.0, 900.0),
    ("v100 pcie 32gb", 14.0, 112.0, 900.0),
    ("v100 sxm2 16gb", 15.7, 125.0, 900.0),
    ("v100 sxm2 32gb", 15.7, 125.0, 900.0),
];

/// A name as names are compared: lower case, `_`, `-` and runs of white space as one space, no maker's name in front.
#[must_use]
pub fn normal(name: &str) -> String {
    let lower = name.to_lowercase().replace(['_', '-'], " ");
    let mut words = lower.split_whitespace().peekable();
    while words.next_if(|w| matches!(*w, "nvidia" | "geforce" | "tesla")).is_some() {}
    words.collect::<Vec<_>>().join(" ")
}

/// The reference of a model by its name, in any usual spelling; none if the table has no such model.
#[must_use]
pub fn reference(model: &str) -> Option<Reference> {
    let name = normal(model);
    let at = MODELS.binary_search_by(|row| row.0.cmp(name.as_str())).ok()?;
    let (_, tflops, matrix, bandwidth) = *MODELS.get(at)?;
    let ratio = (matrix / V100_MATRIX) * (bandwidth / V100_BANDWIDTH);
    Some(Reference { tflops, dlperf: V100 * ratio.sqrt() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_is_sorted_and_written_as_names_are_compared() {
        assert!(MODELS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(MODELS.iter().all(|row| normal(row.0) == row.0));
    }

    #[test]
    fn a_v100_is_21_and_spelling_does_not_matter() {
        let v100 = reference("Tesla V100-SXM2-16GB").unwrap();
        assert!((v100.dlperf - 21.0).abs() < 1e-9);
        assert_eq!(reference("RTX 4090"), reference("NVIDIA GeForce RTX_4090"));
        assert!(reference("RTX 4090").unwrap().dlperf > reference("RTX 3090").unwrap().dlperf);
        assert!(reference("RTX 9999").is_none());
        assert!(reference("").is_none());
    }
}
