(** E1. One deterministic first-order step of every noise process is the relaxation rho y + (1 - rho) D(y);
    E2. inverting it is a fixed-point problem, the same one in z- and in y-coordinates. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

(** DDIM (eta = 0), noise prediction: y = z / sqrt(abar), sigma = sqrt(1 - abar) / sqrt(abar), D = y - sigma eps. *)
Theorem e1_variance_preserving (V : NormedModule R_AbsRing) (abar_t abar_s sigma_t sigma_s : R) (z_t z_s x0 eps : V)
  (Habar_t : 0 < abar_t < 1)
  (Habar_s : 0 < abar_s <= 1)
  (Hsigma_t : sigma_t = sqrt (1 - abar_t) / sqrt abar_t)
  (Hsigma_s : sigma_s = sqrt (1 - abar_s) / sqrt abar_s)
  (Hx0 : x0 = (/ sqrt abar_t) [*] (z_t [-] sqrt (1 - abar_t) [*] eps))
  (Hstep : z_s = sqrt abar_s [*] x0 [+] sqrt (1 - abar_s) [*] eps) :
  let rho := sigma_s / sigma_t in
  let y_t := (/ sqrt abar_t) [*] z_t in
  (/ sqrt abar_s) [*] z_s = rho [*] y_t [+] (1 - rho) [*] (y_t [-] sigma_t [*] eps).
Proof.
  intros rho y_t; unfold rho, y_t; subst.
  assert (0 < sqrt abar_t) by (apply sqrt_lt_R0; lra).
  assert (0 < sqrt (1 - abar_t)) by (apply sqrt_lt_R0; lra).
  assert (0 < sqrt abar_s) by (apply sqrt_lt_R0; lra).
  vector_by ltac:(field; repeat split; lra).
Qed.

(** DDIM with velocity prediction v = sqrt(abar) eps - sqrt(1 - abar) x0: the denoiser sqrt(abar) z - sqrt(1 - abar) v
    is x0, so it is y - sigma eps. *)
Theorem e1_velocity (V : NormedModule R_AbsRing) (abar : R) (z v x0 eps : V)
  (Habar : 0 < abar < 1)
  (Hz : z = sqrt abar [*] x0 [+] sqrt (1 - abar) [*] eps)
  (Hv : v = sqrt abar [*] eps [-] sqrt (1 - abar) [*] x0) :
  sqrt abar [*] z [-] sqrt (1 - abar) [*] v = x0 /\
  x0 = (/ sqrt abar) [*] z [-] (sqrt (1 - abar) / sqrt abar) [*] eps.
Proof.
  assert (0 < sqrt abar) by (apply sqrt_lt_R0; lra).
  assert (Ha : sqrt abar * sqrt abar = abar) by (apply sqrt_sqrt; lra).
  assert (Hb : sqrt (1 - abar) * sqrt (1 - abar) = 1 - abar) by (apply sqrt_sqrt; lra).
  subst; split.
  - vector_by ltac:(try ring_simplify; try (rewrite <- ?Rsqr_pow2; unfold Rsqr); lra).
  - vector_by ltac:(field; lra).
Qed.

(** EDM's Euler step on dx/dsigma = (x - D) / sigma; here y = x. *)
Theorem e1_variance_exploding (V : NormedModule R_AbsRing) (sigma_t sigma_s : R) (y_t y_s D : V)
  (Hsigma : 0 < sigma_t)
  (Hstep : y_s = y_t [+] (sigma_s - sigma_t) [*] ((/ sigma_t) [*] (y_t [-] D))) :
  let rho := sigma_s / sigma_t in
  y_s = rho [*] y_t [+] (1 - rho) [*] D.
Proof. intros rho; unfold rho; subst; vector_by ltac:(field; lra). Qed.

(** Rectified flow's Euler step: y = x / (1 - t), sigma = t / (1 - t), D = x_t - t v. *)
Theorem e1_rectified_flow (V : NormedModule R_AbsRing) (t s sigma_t sigma_s : R) (x_t x_s v : V)
  (Ht : 0 < t < 1)
  (Hs : 0 <= s < 1)
  (Hsigma_t : sigma_t = t / (1 - t))
  (Hsigma_s : sigma_s = s / (1 - s))
  (Hstep : x_s = x_t [+] (s - t) [*] v) :
  let rho := sigma_s / sigma_t in
  let y_t := (/ (1 - t)) [*] x_t in
  (/ (1 - s)) [*] x_s = rho [*] y_t [+] (1 - rho) [*] (x_t [-] t [*] v).
Proof. intros rho y_t; unfold rho, y_t; subst; vector_by ltac:(field; lra). Qed.

(** The fixed points of G(y) = y_s + (1 - rho) (y - D y) are the solutions of F(y) = y_s, and the step of G is the residual. *)
Theorem e2_fixed_points (V : NormedModule R_AbsRing) (D : V -> V) (rho : R) (y_s y : V) :
  let F := fun y => rho [*] y [+] (1 - rho) [*] D y in
  let G := fun y => y_s [+] (1 - rho) [*] (y [-] D y) in
  G y [-] y = y_s [-] F y /\ (G y = y <-> F y = y_s).
Proof.
  intros F G.
  assert (E : G y [-] y = y_s [-] F y) by (unfold F, G; vector).
  split; [exact E|]; split; intros H.
  - replace (F y) with (y_s [-] (y_s [-] F y)) by vector.
    rewrite <- E, H; vector.
  - replace (G y) with ((G y [-] y) [+] y) by vector.
    rewrite E, H; vector.
Qed.

(** The paper's map f in z-coordinates is G in y-coordinates: f(z) / sqrt(abar_t) = G(z / sqrt(abar_t)). *)
Theorem e2_paper_map (V : NormedModule R_AbsRing) (eps D : V -> V) (abar_t abar_s sigma_t sigma_s : R) (z z_s : V)
  (Habar_t : 0 < abar_t < 1)
  (Habar_s : 0 < abar_s <= 1)
  (Hsigma_t : sigma_t = sqrt (1 - abar_t) / sqrt abar_t)
  (Hsigma_s : sigma_s = sqrt (1 - abar_s) / sqrt abar_s)
  (HD : forall z, D ((/ sqrt abar_t) [*] z) = (/ sqrt abar_t) [*] z [-] sigma_t [*] eps z) :
  let rho := sigma_s / sigma_t in
  let c_t := sqrt (1 - abar_t) - sqrt (abar_t / abar_s) * sqrt (1 - abar_s) in
  let f := fun z => sqrt (abar_t / abar_s) [*] z_s [+] c_t [*] eps z in
  let G := fun y => (/ sqrt abar_s) [*] z_s [+] (1 - rho) [*] (y [-] D y) in
  (/ sqrt abar_t) [*] f z = G ((/ sqrt abar_t) [*] z) /\
  (f z = z <-> G ((/ sqrt abar_t) [*] z) = (/ sqrt abar_t) [*] z).
Proof.
  intros rho c_t f G.
  assert (0 < sqrt abar_t) by (apply sqrt_lt_R0; lra).
  assert (0 < sqrt (1 - abar_t)) by (apply sqrt_lt_R0; lra).
  assert (0 < sqrt abar_s) by (apply sqrt_lt_R0; lra).
  assert (E : (/ sqrt abar_t) [*] f z = G ((/ sqrt abar_t) [*] z)).
  { unfold f, G, c_t, rho; rewrite HD; rewrite sqrt_div by lra; subst.
    vector_by ltac:(field; repeat split; lra). }
  split; [exact E|]; rewrite <- E; split; intros Hz.
  - now rewrite Hz.
  - replace (f z) with (sqrt abar_t [*] ((/ sqrt abar_t) [*] f z)) by vector_by ltac:(field; lra).
    rewrite Hz; vector_by ltac:(field; lra).
Qed.

(** Scaling the coordinates changes no Lipschitz constant. *)
Theorem e2_scaling (V : NormedModule R_AbsRing) (f g : V -> V) (a k : R)
  (Ha : 0 < a)
  (Hfg : forall z, f z = a [*] g ((/ a) [*] z)) :
  (forall z w, norm (f z [-] f w) <= k * norm (z [-] w)) <->
  (forall y x, norm (g y [-] g x) <= k * norm (y [-] x)).
Proof.
  assert (E : forall (b : R) (u v : V), 0 < b -> norm (b [*] u [-] b [*] v) = b * norm (u [-] v)).
  { intros b u v Hb; replace (b [*] u [-] b [*] v) with (b [*] (u [-] v)) by vector.
    rewrite norm_scal_eq, Rabs_pos_eq; lra. }
  assert (Hi : 0 < / a) by now apply Rinv_0_lt_compat.
  split; intros H.
  - intros y x; specialize (H (a [*] y) (a [*] x)).
    rewrite !Hfg, !E in H by lra.
    replace ((/ a) [*] (a [*] y)) with y in H by vector_by ltac:(field; lra).
    replace ((/ a) [*] (a [*] x)) with x in H by vector_by ltac:(field; lra).
    apply Rmult_le_reg_l with a; lra.
  - intros z w; rewrite !Hfg, E by lra.
    specialize (H ((/ a) [*] z) ((/ a) [*] w)); rewrite E in H by lra.
    apply Rle_trans with (a * (k * (/ a * norm (z [-] w)))).
    + apply Rmult_le_compat_l; [lra|exact H].
    + right; field; lra.
Qed.
