(** T4. The contraction factor is (1 - rho)(1 - eigenvalue), not 1 - k sqrt(abar) with 0 < k < 1: beyond the window's edges
    the fixed-point map pushes points apart. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

(** c_t / sqrt(1 - abar_t) = 1 - rho, the factor that the paper drops. *)
Theorem t4_factor (abar_t abar_s sigma_t sigma_s : R)
  (Habar_t : 0 < abar_t < 1)
  (Habar_s : 0 < abar_s <= 1)
  (Hsigma_t : sigma_t = sqrt (1 - abar_t) / sqrt abar_t)
  (Hsigma_s : sigma_s = sqrt (1 - abar_s) / sqrt abar_s) :
  (sqrt (1 - abar_t) - sqrt (abar_t / abar_s) * sqrt (1 - abar_s)) / sqrt (1 - abar_t) = 1 - sigma_s / sigma_t.
Proof.
  assert (0 < sqrt abar_t) by (apply sqrt_lt_R0; lra).
  assert (0 < sqrt (1 - abar_t)) by (apply sqrt_lt_R0; lra).
  assert (0 < sqrt abar_s) by (apply sqrt_lt_R0; lra).
  subst; rewrite sqrt_div by lra; field; lra.
Qed.

(** An eigenvalue at or beyond an edge of T3's window: no contraction. *)
Theorem t4_expands (V : NormedModule R_AbsRing) (J : V -> V) (rho lambda : R) (v : V)
  (Hrho : 0 <= rho < 1)
  (Heigenvector : J v = lambda [*] v)
  (Hlambda : lambda <= - rho / (1 - rho) \/ (2 - rho) / (1 - rho) <= lambda) :
  norm v <= norm ((1 - rho) [*] (v [-] J v)).
Proof.
  rewrite Heigenvector.
  replace ((1 - rho) [*] (v [-] lambda [*] v)) with (((1 - rho) * (1 - lambda)) [*] v) by vector.
  rewrite norm_scal_eq, <- (Rmult_1_l (norm v)) at 1.
  apply Rmult_le_compat_r; [apply norm_ge_0|].
  destruct Hlambda as [H|H].
  - apply Rle_div_r in H; [|lra]; apply Rle_trans with (2 := Rle_abs _); lra.
  - apply Rle_div_l in H; [|lra]; rewrite <- Rabs_Ropp; apply Rle_trans with (2 := Rle_abs _); lra.
Qed.
