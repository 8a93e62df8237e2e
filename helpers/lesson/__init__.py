"""What only the course needs: pictures, checks of exercises, synthetic patients, the doctor."""
