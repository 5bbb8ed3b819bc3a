"""The Wan family: SkyReels-V2-DF, Wan2.1 and Wan2.2-TI2V."""
